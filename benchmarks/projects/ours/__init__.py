"""Django Task API as its documentation sets it up."""
