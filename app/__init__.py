"""The window. Shows what the engine measures; importing it loads no torch, triton or pynvml."""
