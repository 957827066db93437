"""From files as users have them to rows the train stage maps from disk."""
