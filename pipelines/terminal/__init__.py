"""What a person sees and types: lines, tables, progress, flags."""
