"""The passive route observer: segments of TCP become streams, exchanges, and facts about answers."""
