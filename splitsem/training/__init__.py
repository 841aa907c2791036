"""Split training: head and tail of one network learn on two machines; features go up, gradients come back."""
