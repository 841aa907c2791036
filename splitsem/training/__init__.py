"""Training: LightningModules for tasks and learned codecs, and the weights that are kept."""
