"""Evidence: all that is known of the training that is handed over, on the test films, as `evidence.json` keeps it."""
