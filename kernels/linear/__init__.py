"""Linear layers: a batch of rows times a matrix of weights."""
