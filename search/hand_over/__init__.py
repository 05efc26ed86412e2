"""What is handed over after the finals: the winner's network for other programs, and a card that says what it is."""
