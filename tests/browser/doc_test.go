// Package browser is the console as people have it: the program itself, on a stack, in Debian's Chromium. make browser runs it, make screenshots
// keeps what it looks like in doc/images.
package browser
