package main

// maxConnections returns how many connections the server may have. Windows has no limit
// for a process.
func maxConnections() int { return mostConnections }
