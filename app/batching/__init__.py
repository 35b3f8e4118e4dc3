"""What the batching lab chooses, is told, and says of it: plain data, free of Qt but for `kind`, which names its form."""
