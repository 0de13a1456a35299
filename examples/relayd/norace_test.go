//go:build !race

package main_test

var buildFlags []string

const memoryFactor = 1
