"""Ego-Exo (Li et al., CVPR 2021): exo pre-training that distils egocentric signals."""
