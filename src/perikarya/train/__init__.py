"""One fold: fine-tuning a network or fitting a head."""
