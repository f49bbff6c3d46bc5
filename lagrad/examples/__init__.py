"""Programs that ship with lagrad; each module defines `program`."""
