"""Which gang does what next, until every video is committed or dead-lettered. Without Ray."""
