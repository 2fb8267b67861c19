"""The files of a generator's folder, by name."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TRAINING = "training"
