#!/bin/bash
# Patterns that only a shell with extglob can read, so that a check of the whole script finds a mistake in it.
shopt -s extglob
cd "$HERE" || exit
touch a.txt b.log c.md

# All but the text
rm -v !(*.txt)
mv a.txt b.txt

# What is left
ls +(a|b).@(txt|log)
