"""What a run shows of itself: log, report, charts, trackers, sample sheets."""
