"""These plugins are built, installed and tested in environments of their own: see ../plugins."""

collect_ignore_glob = ["*"]
