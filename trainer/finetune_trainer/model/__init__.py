"""The base model: its files, what they say of it, loading, quantization, adapters."""
