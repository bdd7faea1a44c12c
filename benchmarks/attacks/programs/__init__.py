"""Programs that attacks run as processes of their own."""
