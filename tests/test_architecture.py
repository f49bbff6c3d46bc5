"""What docs/architecture.md says of the house holds: the reader's path, and the recipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests_walks import WALKS, climbs

DOC = Path(__file__).parent.parent / "docs" / "architecture.md"
TEXT = DOC.read_text(encoding="utf-8")
