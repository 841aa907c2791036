"""Detection of boxes: the task, its sources of pictures, its loss, its score and its answer."""
