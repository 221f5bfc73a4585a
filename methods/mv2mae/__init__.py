"""MV2MAE: multi-view masked autoencoding of synchronised video, with a cross-view decoder (arXiv 2401.15900)."""
