"""What leaves the pod: every file first, then the manifest once, then the pointer to it; and the model card."""
