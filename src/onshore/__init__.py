"""onshore: the open training center for assisted driving that stays inside the border.

Version only; imports nothing, so that `import onshore.car` pulls no training library into a vehicle.
"""

__version__ = "0.1.0"
