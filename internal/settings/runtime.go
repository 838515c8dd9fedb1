package settings

// TunesGC reports whether the operator tunes the garbage collector.
func TunesGC(getenv Getenv) bool { return getenv("GOGC") != "" }
