"""The room for the passive route observer: packets, streams, exchanges, facts about an answer."""
