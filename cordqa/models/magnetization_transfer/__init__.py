"""Magnetization transfer: ratio, saturation and T1 from three spoiled gradient echoes."""
