"""Region packs: one folder of data per jurisdiction, and the loader that reads it.

Rule: everything that differs between jurisdictions is data here; no other room may branch on a region's name.
"""

from onshore.region.packs import RegionPack, load_pack, regions

__all__ = ["RegionPack", "load_pack", "regions"]
