"""Plain functions as programs: `grad` … `compile`."""
