"""The embedded models: small, trained on `similar` clips, shipped with the package (see README.md here)."""
