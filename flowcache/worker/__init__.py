"""One rank's work: a segment of a request becomes decoded chunks and the tail for the next segment."""
