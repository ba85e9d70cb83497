"""cordqa: how far can an MRI measurement be trusted?

Quality assurance and reliability for quantitative MRI of phantoms and of the
spinal cord.  Research use only.
"""

__version__ = "0.1.0"
