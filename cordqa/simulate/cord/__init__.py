"""Labelled axial sections of a digital spinal cord, for training and testing a segmentation."""
