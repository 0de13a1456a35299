//go:build race

package main_test

// buildFlags builds relayd as the tests are built: with the race detector, whose findings make it end with code 66.
var buildFlags = []string{"-race"}

// memoryFactor is how much more memory a program takes that is built so: the detector keeps shadows of all of it.
const memoryFactor = 5
