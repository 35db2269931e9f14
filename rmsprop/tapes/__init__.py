"""Tapes: gradients of losses, by autograd or by PyTorch."""
