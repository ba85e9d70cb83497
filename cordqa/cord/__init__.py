"""The spinal cord: centreline, segmentation, levels, atlas, morphometry, extraction; arrays in, rows out."""
