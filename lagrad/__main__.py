"""`python -m lagrad`."""

from lagrad.cli import main

raise SystemExit(main())
