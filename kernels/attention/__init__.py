"""Attention: softmax(Q K^T / sqrt(D)) V, by kernels that differ in what they write to HBM."""
