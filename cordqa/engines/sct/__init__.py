"""The Spinal Cord Toolbox as an external program: find it, call it, judge what it leaves."""
