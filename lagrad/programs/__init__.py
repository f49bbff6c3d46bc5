"""`Program`, `Solution`, and the programs derived from one."""
