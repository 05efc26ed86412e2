"""What follows a search: finalists trained again, the sealed test split opened, and what that says."""
