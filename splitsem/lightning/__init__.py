"""LightningModules: training a task, and training with the codec in the loop."""
