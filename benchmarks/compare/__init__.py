"""One run that measures poolkit and its peers in turn: offline, online, at start-up, and their memory."""
