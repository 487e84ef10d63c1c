"""`batch`: folders of films and pictures on as many processes and machines as there are; see `docs/batch.md`."""
