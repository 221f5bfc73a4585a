"""BYOV: masked self-view and cross-view modelling on a frozen image encoder (arXiv 2503.19706, CVPR 2025)."""
