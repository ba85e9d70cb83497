"""Engines that do the work on a spinal cord: built in, or the Spinal Cord Toolbox as a program."""
