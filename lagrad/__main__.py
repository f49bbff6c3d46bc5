"""`python -m lagrad`."""

from lagrad.command import main

raise SystemExit(main())
